# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The second boot (sourced by steps.sh): what was set and held is there, what the kernel may lack is said, and the
# package goes as it came.

: "${state:?}" "${boot:?}"

goes_on() {
	await 90 systemctl -q is-active odi || why "odi.service is $(systemctl is-active odi)" || return
	await 90 status_is 'd["profiling"]["enabled"] and d["ledger"]["profiled"] > 0' || why "it does not profile" || return
	[ -z "$(systemctl --failed --no-legend --plain 'odi*')" ] || why "$(systemctl --failed --no-legend --plain 'odi*')"
}

sends_held() {
	local from
	touch "$state/rebooted"
	start_receiver
	await 120 received known-work "$state/rebooted" || why "nothing arrives" || return
	# what was profiled before: a profile whose time lies between the receiver's end and the reboot
	from=$(cat "$state/unsent_from")
	await 60 came_from_before "$from" || {
		odictl destination show inside
		odictl status
		why "what was held at the reboot does not arrive"
	}
}

# Times of profiles are 64-bit little-endian numbers behind the tag of time_unix_nano: looked for by value.
came_from_before() {
	python3 - "$state/received" "$1" "$(awk '$1 == "btime" { print $2 }' /proc/stat)" <<-'PYTHON'
		import glob, re, struct, sys
		folder, since, until = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
		for name in glob.glob(folder + "/*.pb"):
		    data = open(name, "rb").read()
		    if float(name.rsplit("/", 1)[1].split("-")[0]) < until:
		        continue
		    for m in re.finditer(rb"\x19(.{8})", data, re.S):
		        if since < struct.unpack("<Q", m[1])[0] / 1e9 < until - 1:
		            sys.exit(0)
		sys.exit(1)
	PYTHON
}

# The clock is set a day forth, two back and one forth again while nothing can be sent.
clock_is_set() {
	local step n pid delivered
	pid=$(main_pid)
	stop_receiver
	for step in 86400 -172800; do
		n=$(inside held)
		date -s "@$(($(date +%s) + step))" || return
		await 60 held_more_than "$n" || why "nothing is held after the clock was set by $step s" || return
	done
	date -s "@$(($(date +%s) + 86400))" || return
	odictl destination show inside
	delivered=$(inside delivered) n=$(inside held)
	touch "$state/clock-set"
	start_receiver
	await 120 status_is "d['ledger']['destinations']['inside']['delivered'] >= $((delivered + n))" ||
		why "$delivered were delivered and $n held, now $(inside delivered) and $(inside held)" || return
	[ "$(main_pid)" = "$pid" ] || why "agentd was restarted" || return
	nothing_lost
}

module_frames() {
	local status
	mkdir -p /var/tmp/over/{upper,work,merged}
	mount -t overlay overlay -o lowerdir=/usr/share,upperdir=/var/tmp/over/upper,workdir=/var/tmp/over/work \
		/var/tmp/over/merged || why "overlay cannot be mounted" || return
	grep -q '^overlay ' /proc/modules || why "overlay is no module of this kernel" || return
	systemd-run -q --unit=looker sh -c 'while :; do ls -lR /var/tmp/over/merged >/dev/null; done'
	await 90 named_in_module
	status=$?
	[ $status = 0 ] || {
		odictl top --by module
		odictl top --lines 1000 | grep -i -e ovl -e overlay
		reason="no function of the module overlay is named"
	}
	systemctl stop looker
	umount /var/tmp/over/merged
	rm -rf /var/tmp/over
	return $status
}

named_in_module() {
	odictl top --lines 1000 | grep -q 'ovl_[a-z_]*' && odictl top --by module --lines 1000 | grep -q overlay
}

second_status() {
	await 60 status_is 'd["healthy"] and d["ledger"]["closes"]' || why "$(odictl status 2>&1 | head -n 6 | tr '\n' ' ')" || return
	odictl status --json >"$state/status-$boot.json"
	odictl status --verbose
	nothing_lost
}

says_no_btf() {
	local text status=0
	systemctl stop odi || return
	mount -t tmpfs none /sys/kernel/btf || return
	systemctl start odi || why "odi.service does not start" || return
	await 30 odictl version
	sleep 5
	text=$(odictl status 2>&1) || status=$?
	echo "$text"
	odictl doctor
	odictl doctor >"$state/doctor-without-btf" 2>&1
	grep -q -i 'BTF' "$state/doctor-without-btf" || reason="doctor does not speak of BTF"
	[ $status = 1 ] || reason="odictl status says $status"
	grep -q 'type information' <<<"$text" && grep -q CONFIG_DEBUG_INFO_BTF <<<"$text" || reason="no sentence that says so and why: $(head -n 3 <<<"$text" | tr '\n' ' ')"
	[ "$(bpf_programs)" = 0 ] || reason="programs are loaded"
	systemctl -q is-active odi || reason="odi.service is $(systemctl is-active odi)"
	umount /sys/kernel/btf || return
	[ -z "$reason" ] || return
	systemctl restart odi || why "odi.service does not start again" || return
	await 60 status_is 'd["ledger"]["profiled"] > 0' || why "it does not profile after BTF came back"
}

leaves_no_process() {
	! pgrep -x agentd >/dev/null || why "agentd still runs" || return
	[ "$(bpf_programs)" = 0 ] || why "$(bpf_programs) BPF programs are left"
}

removes() {
	# what arrived until now is what it says
	await 30 status_is 'd["ledger"]["closes"]' || return
	odictl status --json >"$state/status-stopped.json" || [ -s "$state/status-stopped.json" ] || return
	as_typed 120 "$(readme_line 'sudo apt remove')" || why "apt remove failed: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	[ "$(dpkg-query -W -f '${db:Status-Status}' odi)" = config-files ] || why "$(dpkg-query -W -f '${db:Status-Status}' odi)" || return
	leaves_no_process || return
	[ ! -e /usr/bin/odictl ] || why "odictl is still there" || return
	[ -e /etc/odi/conf.d/50-test.yaml ] || why "settings are gone" || return
	[ -n "$(find /var/lib/odi -type f -print -quit)" ] || why "/var/lib/odi is gone"
}

comes_back() {
	cp /test/new/odi_*.deb /root/ || return
	as_typed 300 "$(readme_line 'sudo apt install')" || why "apt install failed: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	await 60 systemctl -q is-active odi || why "odi.service is $(systemctl is-active odi)" || return
	await 60 status_is 'd["profiling"]["enabled"] and d["ledger"]["profiled"] > 0' || why "it does not profile" || return
	odictl source list | grep -q known-work || why "the source is gone" || return
	nothing_lost
}

purges() {
	local left
	as_typed 120 "$(readme_line 'sudo apt purge')" || why "apt purge failed: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	leaves_no_process || return
	# what the tests made
	rm -f /etc/systemd/system/work.service /etc/systemd/system/multi-user.target.wants/work.service \
		/etc/apt/sources.list.d/odi.list
	systemctl daemon-reload
	list_files >"$state/files.after"
	# of the first boot, too: what a reboot makes by itself is none of ours
	left=$(comm -13 "$state/files.before" "$state/files.after" | grep -v -E '^/etc/(passwd|group|g?shadow|subuid|subgid)-?$')
	echo "left: $left"
	left=$(grep -E '(^|/)odi|agentd' <<<"$left" | head -n 5 | tr '\n' ' ')
	[ -z "$left" ] || why "left: $left" || return
	left=$(comm -13 <(sort "$state/passwd.before") <(getent passwd | sort); comm -13 <(sort "$state/group.before") <(getent group | sort))
	echo "accounts left: $left"
	# Debian's packages keep their users, so that no other gets their number; none that may log in.
	left=$(getent passwd | grep '^odi' | grep -v ':/usr/sbin/nologin$' | tr '\n' ' ')
	[ -z "$left" ] || why "users are left that may log in: $left" || return
	[ -z "$(systemctl list-units --all --no-legend --plain 'odi*')" ] || why "$(systemctl list-units --all --no-legend --plain 'odi*')"
}

all_of_readme() {
	local left
	left=$(comm -3 <(readme_lines | sort -u) <(sort -u "$state/typed"))
	[ -z "$left" ] || why "not run, or not there: $left" || return
	[ "$(readme_lines | wc -l)" -ge 5 ] || why "README has $(readme_lines | wc -l) commands"
}

case_of "after a reboot it profiles again, by itself" goes_on
case_of "what was held when the machine went down arrives" sends_held
case_of "a clock that is set by days stops no delivery" clock_is_set
case_of "functions of a kernel module have names" module_frames
case_of "odictl status is healthy after a reboot, and its ledger closes" second_status
case_of "without BTF it says so, and why, and samples nothing" says_no_btf
stop_receiver
systemctl -q disable --now work.service
case_of "apt remove keeps settings and state, and nothing runs" removes
case_of "installed again, it goes on where it was" comes_back
case_of "apt purge leaves nothing" purges
case_of "each command of README's section was run as it stands there" all_of_readme
