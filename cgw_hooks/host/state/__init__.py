"""Everything under the runtime directory (/run/cgw): records, their index and the lock."""
