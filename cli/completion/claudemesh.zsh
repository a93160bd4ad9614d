#compdef claudemesh
# Completion of claudemesh for zsh. In ~/.zshrc, behind compinit:  source <(claudemesh completion zsh)
_claudemesh() {
  local line value
  local -a described
  while IFS= read -r line; do
    value=${line%%$'\t'*}
    described+=("${value//:/\\:}:${line#*$'\t'}")
  done < <(command claudemesh __complete --current="${(Q)words[CURRENT]}" -- "${(@Q)words[2,CURRENT-1]}" 2>/dev/null)
  if (( ${#described} )); then
    _describe -t claudemesh claudemesh described
  else
    _files
  fi
}
if [[ "${funcstack[1]}" == _claudemesh ]]; then
  _claudemesh "$@"
else
  compdef _claudemesh claudemesh
fi
