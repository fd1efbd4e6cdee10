"""The checks of ``cgw doctor``, one module per topic; ``node/doctor`` has their order."""
