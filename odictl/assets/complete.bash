# SPDX-License-Identifier: Apache-2.0
# Completion of odictl for bash: odictl itself says what can stand at the cursor.

_odictl()
{
	local line=${COMP_LINE:0:COMP_POINT} words word rest current before
	COMPREPLY=()
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	current=${words[-1]}
	# bash has cut the word at these signs and replaces only what follows the last of them.
	before=${current%"${current##*[=:]}"}
	while IFS=$'\t' read -r word rest; do
		if [[ $word == :files ]]; then
			compopt -o default
			COMPREPLY=()
			return
		fi
		COMPREPLY+=("${word#"$before"}")
	done < <(odictl completion words -- "${words[@]:1}" 2>/dev/null)
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
	return 0
}
complete -F _odictl odictl
