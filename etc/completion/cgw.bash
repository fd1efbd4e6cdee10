# cgw-hooks: completion for bash, as /usr/share/bash-completion/completions/cgw.
# It needs no other file: source it, or put it where bash-completion looks.

_cgw() {
    local word command= guest= skip= i
    local current=${COMP_WORDS[COMP_CWORD]}
    local -a found=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then
            continue # bash makes three words of --source=NETWORK
        elif [[ $skip ]]; then
            skip=
        elif [[ $word == --source || $word == --for || $word == --guest-address || $word == --from ||
            $word == --timeout || $word == --root || $word == --since || $word == --lines ||
            $word == -n || $word == --by || $word == --file ||
            $word == --limit || $word == --max-connections ]]; then
            skip=yes
        elif [[ $word != -* && -z $command ]]; then
            command=$word
        elif [[ $word != -* && -z $guest ]]; then
            guest=$word
        fi
    done
    [[ $skip ]] && return
    if [[ -z $command ]]; then
        found=(publish unpublish deny allow status doctor trace flows log check render sync agent node registry install uninstall --help --version)
    elif [[ $current == -* ]]; then
        case $command in
        publish) found=(--source --for --limit --max-connections --guest-address --live --config --dry-run --json --help) ;;
        unpublish) found=(--live --config --dry-run --json --help) ;;
        deny) found=(--for --by --file --force --list --json --help) ;;
        allow) found=(--by --file --all --help) ;;
        status) found=(--json --graph --cluster --figures --watch --schema --help) ;;
        flows) found=(--json --help) ;;
        log) found=(--json --since --lines --help) ;;
        doctor) found=(--json --verbose --schema --help) ;;
        registry)
            found=(--help)
            [[ $guest == status ]] && found+=(--json)
            [[ $guest == forget ]] && found+=(--for-good)
            ;;
        trace) found=(--from --probe --timeout --json --help) ;;
        check) found=(--schema --help) ;;
        sync) found=(--json --settle --help) ;;
        install) found=(--xen --root --help) ;;
        uninstall) found=(--root --help) ;;
        *) found=(--help) ;;
        esac
    elif [[ -z $guest ]]; then
        case $command in
        trace) mapfile -t found < <(cgw complete traceable 2>/dev/null) ;;
        publish | unpublish | status | doctor | flows | log | check) mapfile -t found < <(cgw complete names 2>/dev/null) ;;
        node) found=(up down takeover handback) ;;
        registry) found=(status forget export import) ;;
        esac
    elif [[ $command == trace && $guest != *:* ]]; then
        current=${current#:} # bash makes three words of GUEST:PORT
        mapfile -t found < <(cgw complete ports "$guest" 2>/dev/null)
    elif [[ $command == unpublish ]]; then
        mapfile -t found < <(cgw complete ports "$guest" 2>/dev/null)
    fi
    for word in "${found[@]}"; do
        [[ $word == "$current"* ]] && COMPREPLY+=("$(printf '%q' "$word")")
    done
}

complete -o default -F _cgw cgw
