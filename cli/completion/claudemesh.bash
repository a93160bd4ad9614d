# Completion of claudemesh for bash 3.2 and later. In ~/.bashrc:  source <(claudemesh completion bash)
#
# What can stand at the cursor is asked of the program on PATH, never of a file that the line names. Names that peers chose are among the answers, so no
# answer is evaluated or expanded: each is quoted and put in.
_claudemesh() {
  local i word joined="" cut line value
  local -a before
  before=()
  COMPREPLY=()
  # Bash breaks words at "=": --mesh=te comes as three of them.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if ((i > 1)) && [[ "$word" == "=" && "$joined" == -* || "$joined" == -*= ]]; then
      joined="$joined$word"
      continue
    fi
    ((i > 1)) && before+=("$joined")
    joined="$word"
  done
  # What stands in front of the last "=" stays on the line by itself.
  cut="${COMP_WORDS[COMP_CWORD]}"
  [[ "$cut" == "=" ]] && cut=""
  cut="${joined%"$cut"}"
  while IFS= read -r line; do
    value="${line%%$'\t'*}"
    COMPREPLY+=("$(printf '%q' "${value#"$cut"}")")
  done < <(command claudemesh __complete --current="$joined" -- "${before[@]}" 2>/dev/null)
}
complete -o bashdefault -o default -F _claudemesh claudemesh
