#compdef odictl
# SPDX-License-Identifier: Apache-2.0
# Completion of odictl for zsh: odictl itself says what can stand at the cursor.

_odictl()
{
	local -a words_and_help keys
	local line word
	for line in "${(@f)$(odictl completion words -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
		word=${line%%$'\t'*}
		if [[ $word == :files ]]; then
			[[ $PREFIX == --*=* ]] && compset -P '*='
			_files
			return
		fi
		[[ -z $word ]] && continue
		if [[ $word == *= ]]; then
			keys+=("${word//:/\\:}:${line#*$'\t'}")
		else
			words_and_help+=("${word//:/\\:}:${line#*$'\t'}")
		fi
	done
	_describe odictl words_and_help
	(($#keys)) && _describe odictl keys -S ''
}

if [[ ${funcstack[1]-} == _odictl ]]; then
	_odictl "$@"
else
	compdef _odictl odictl
fi
