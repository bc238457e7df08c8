# SPDX-License-Identifier: Apache-2.0
# Completion of odictl for fish: odictl itself says what can stand at the cursor.

function __odictl_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	odictl completion words -- $before[2..-1] "$current" 2>/dev/null
end

complete -c odictl -f -a '(__odictl_words | string match -v -r "^:files")'
complete -c odictl -n '__odictl_words | string match -q -r "^:files"' -F
