# Completion of claudemesh for fish:  claudemesh completion fish > ~/.config/fish/completions/claudemesh.fish
function __claudemesh_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l found (command claudemesh __complete --current="$current" -- $before[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c claudemesh -f -a '(__claudemesh_complete)'
