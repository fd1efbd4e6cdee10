# cgw-hooks: completion for fish, as /usr/share/fish/vendor_completions.d/cgw.fish.

set -l commands publish unpublish deny allow status doctor trace flows log check render sync agent node registry install uninstall

function __cgw_guest_is_missing
    # The words before the cursor: cgw, the command, and no guest yet.
    test (count (string match --invert -- '-*' (commandline -opc))) -eq 2
end

function __cgw_ports
    set -l words (string match --invert -- '-*' (commandline -opc))
    cgw complete ports $words[3] 2>/dev/null
end

complete -c cgw -f
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a publish -d 'Publish ports of a guest'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a unpublish -d 'Withdraw ports of a guest'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a deny -d 'Ban clients'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a allow -d 'Lift bans'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a status -d 'Show what is published'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a trace -d 'Show the way of a packet'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a flows -d 'Show the open connections'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a log -d 'Show who published what'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a doctor -d 'Find out why clients cannot reach a guest'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a check -d 'Validate config or guest'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a render -d 'Print the ruleset'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a sync -d 'Make this node match its guests'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a agent -d 'Serve hook calls and follow changes'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a node -d 'Configure as a gateway'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a registry -d 'Look at the registry of the cluster'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a install -d 'Install hooks and units'
complete -c cgw -n "not __fish_seen_subcommand_from $commands" -a uninstall -d 'Remove hooks and units'

complete -c cgw -n '__fish_seen_subcommand_from trace; and __cgw_guest_is_missing' -a '(cgw complete traceable 2>/dev/null)'
complete -c cgw -n '__fish_seen_subcommand_from trace' -l from -x -d 'Only clients of these networks'
complete -c cgw -n '__fish_seen_subcommand_from trace' -l probe -d 'Be the client'
complete -c cgw -n '__fish_seen_subcommand_from trace' -l timeout -x -d 'How long to wait'
complete -c cgw -n '__fish_seen_subcommand_from publish unpublish status doctor flows log check; and __cgw_guest_is_missing' -a '(cgw complete names 2>/dev/null)'
complete -c cgw -n '__fish_seen_subcommand_from unpublish; and not __cgw_guest_is_missing' -a '(__cgw_ports)'
complete -c cgw -n '__fish_seen_subcommand_from node; and __cgw_guest_is_missing' -a 'up down takeover handback'
complete -c cgw -n '__fish_seen_subcommand_from registry; and __cgw_guest_is_missing' -a 'status forget export import'
complete -c cgw -n '__fish_seen_subcommand_from registry; and __fish_seen_subcommand_from import' -F
complete -c cgw -n '__fish_seen_subcommand_from registry; and __fish_seen_subcommand_from forget' -l for-good -d 'Also its addresses'
complete -c cgw -n '__fish_seen_subcommand_from check' -F
complete -c cgw -n '__fish_seen_subcommand_from deny' -l for -x -d 'How long'
complete -c cgw -n '__fish_seen_subcommand_from deny' -l force -d 'Also addresses of nodes'
complete -c cgw -n '__fish_seen_subcommand_from deny' -l list -d 'Print who is banned'
complete -c cgw -n '__fish_seen_subcommand_from deny' -l json -d 'Print JSON'
complete -c cgw -n '__fish_seen_subcommand_from deny allow' -l by -x -d 'Whose bans'
complete -c cgw -n '__fish_seen_subcommand_from deny allow' -l file -r -F -d 'A list of clients'
complete -c cgw -n '__fish_seen_subcommand_from allow' -l all -d 'Lift all bans'
complete -c cgw -n '__fish_seen_subcommand_from publish' -l source -x -d 'Only these clients may connect'
complete -c cgw -n '__fish_seen_subcommand_from publish' -l for -x -d 'Take the ports back after this time'
complete -c cgw -n '__fish_seen_subcommand_from publish' -l limit -x -d 'New connections of one client'
complete -c cgw -n '__fish_seen_subcommand_from publish' -l max-connections -x -d 'Connections of one client at once'
complete -c cgw -n '__fish_seen_subcommand_from publish' -l guest-address -x -d 'The address of the guest'
complete -c cgw -n '__fish_seen_subcommand_from publish unpublish' -l live -d 'Only while it runs this time'
complete -c cgw -n '__fish_seen_subcommand_from publish unpublish' -l config -d 'Only from its next start on'
complete -c cgw -n '__fish_seen_subcommand_from publish unpublish' -l dry-run -d 'Change nothing'
complete -c cgw -n '__fish_seen_subcommand_from publish unpublish status doctor trace flows log sync' -l json -d 'Print JSON'
complete -c cgw -n '__fish_seen_subcommand_from status; and not __fish_seen_subcommand_from registry' -l graph -d 'Print a graph'
complete -c cgw -n '__fish_seen_subcommand_from status; and not __fish_seen_subcommand_from registry' -l cluster -d 'All guests of the cluster'
complete -c cgw -n '__fish_seen_subcommand_from status; and not __fish_seen_subcommand_from registry' -l figures -d 'Also connections and bytes'
complete -c cgw -n '__fish_seen_subcommand_from status doctor check; and not __fish_seen_subcommand_from registry' -l schema -d 'Print the path of the schema'
complete -c cgw -n '__fish_seen_subcommand_from doctor' -l verbose -d 'Also list the checks that passed'
complete -c cgw -n '__fish_seen_subcommand_from status; and not __fish_seen_subcommand_from registry' -l watch -d 'Look again every two seconds'
complete -c cgw -n '__fish_seen_subcommand_from log' -l since -x -d 'From this time on'
complete -c cgw -n '__fish_seen_subcommand_from log' -s n -l lines -x -d 'Only the last entries'
complete -c cgw -n '__fish_seen_subcommand_from sync' -l settle -d 'Run again when rules no longer change'
complete -c cgw -n '__fish_seen_subcommand_from install' -l xen -d 'Also the vif script'
