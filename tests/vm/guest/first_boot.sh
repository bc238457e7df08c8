# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The first boot (sourced by steps.sh): install, enable, look, send, change, upgrade; then something is left unsent.

: "${state:?}" "${boot:?}"
old_version=$(dpkg-deb -f /test/old/odi_*.deb Version)
new_version=$(dpkg-deb -f /test/new/odi_*.deb Version)

installs() {
	echo "deb [trusted=yes] file:/test/needs ./" >/etc/apt/sources.list
	apt-get update || why "apt cannot read the packages of the distribution" || return
	apt-get install -y sudo || return
	list_files >"$state/files.before"
	getent passwd >"$state/passwd.before"
	getent group >"$state/group.before"
	# the previous build, under the name that is installed in README
	cp /test/old/odi_*.deb "/root/$(basename /test/new/odi_*.deb)" || return
	as_typed 300 "$(readme_line 'sudo apt install')" || why "apt install failed: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	[ "$(dpkg-query -W -f '${db:Status-Status} ${Version}' odi)" = "installed $old_version" ] ||
		why "$(dpkg-query -W odi 2>&1)"
}

runs_idle() {
	await 60 systemctl -q is-active odi || why "odi.service is $(systemctl is-active odi)" || return
	[ "$(systemctl is-enabled odi)" = enabled ] || why "odi.service is $(systemctl is-enabled odi)" || return
	systemctl status --no-pager odi || why "systemctl status says $?" || return
	await 30 odictl profiling status || why "odictl: $(odictl profiling status 2>&1 | tail -n 1)" || return
	status_is 'not d["profiling"]["enabled"]' || why "it profiles without having been told to" || return
	[ "$(bpf_programs)" = 0 ] || why "$(bpf_programs) BPF programs are loaded"
}

units_are_hardened() {
	local unit limit worst
	for unit in "odi 2.2" "odi-exporter 1.5"; do
		limit=${unit#* } unit=${unit% *}.service
		worst=$(systemd-analyze security --no-pager "$unit" | tee /dev/stderr |
			sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p')
		echo "guest: $unit: exposure $worst by systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" >/dev/ttyS0
		awk -v a="${worst:-99}" -v b="$limit" 'BEGIN { exit !(a + 0 <= b) }' ||
			why "$unit: ${worst:-no figure}, not at most $limit" || return
	done
}

user_units() {
	cat >/etc/systemd/system/work.service <<-'UNIT'
		[Unit]
		Description=A workload of known shares
		[Service]
		ExecStart=/test/workloads/shares
		# what is left of an emulated machine is for what is tested
		CPUQuota=25%
		Nice=19
		[Install]
		WantedBy=multi-user.target
	UNIT
	systemctl daemon-reload
	systemctl -q enable --now work.service
	mkdir -p "$state/received"
	start_receiver
}

enables() {
	local status=0
	# emulated, profiling costs tens of percents: without this its rate would be lowered step by step
	odictl profiling set budget=0 || return
	as_typed 120 "$(readme_line 'sudo odictl profiling enable')" leaf_sixty leaf_thirty || status=$?
	[ $status = 0 ] || {
		odictl top --lines 100
		why "exit status $status: $(tail -n 2 "$state/log" | tr '\n' ' ')"
	} || return
	await 60 status_is 'd["profiling"]["enabled"] and d["ledger"]["profiled"] > 0' || why "no samples within 60 s" || return
	[ "$(bpf_programs)" -ge 4 ] || why "$(bpf_programs) BPF programs"
}

top_shows() { # NAME...
	local name text
	text=$(odictl top --lines 1000) || return
	for name in "$@"; do
		grep -q -F -w -e "$name" <<<"$text" || return
	done
}

top_prints() {
	await 90 top_shows leaf_sixty leaf_thirty leaf_ten || {
		odictl top
		odictl status --verbose
		why "no leaf_sixty, leaf_thirty and leaf_ten in odictl top"
	}
}

adds_source() {
	odictl source add systemd work.service --service-name known-work --label team=edge ||
		why "exit status $?: $(tail -n 1 "$state/log")" || return
	odictl source list | tee /dev/stderr | grep -q known-work || why "it is not listed" || return
	adds_destination
}

adds_destination() {
	odictl destination add otlphttp inside --url http://127.0.0.1:4318 || return
	# Emulated, Python may take more than the usual seconds to answer; a request that times out is sent again.
	odictl destination set inside timeout=60s || return
	odictl destination test inside || why "destination test: $(tail -n 1 "$state/log")" || return
	touch "$state/added"
	await 90 received known-work "$state/added" || {
		odictl destination show inside
		why "no profile of the service arrived"
	}
}

looks_as_written() {
	as_typed 120 "$(readme_line 'systemctl status odi')" 'active (running)' 'agentd[' NAME || why "exit status $?"
}

status_is_healthy() {
	odictl status || why "odictl status says $?: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	odictl status --verbose
	odictl status --json >"$state/status-$boot.json"
	nothing_lost
}

doctor_finds_nothing() {
	local status=0
	as_typed 120 "$(readme_line 'sudo odictl doctor')" kernel destination || status=$?
	[ $status -le 1 ] || why "exit status $status" || return
	odictl doctor --json | json 'd' >"$state/doctor.json" || why "its JSON cannot be read" || return
	# Emulated, the receiver may not answer a test in time.
	await 30 odictl doctor || why "exit status $status: $(odictl doctor | grep -i fail | head -n 3 | tr '\n' ' ')"
}

journal_speaks() {
	journalctl --no-pager -u odi | tee /dev/stderr | grep -q 'agentd\[' || why "nothing of agentd in journalctl -u odi" || return
	[ "$(journalctl --no-pager -u odi -o cat | wc -l)" -lt 400 ] || why "hundreds of lines within minutes"
}

manual_is_there() {
	local page
	for page in odictl agentd $(basename -s .1.gz /usr/share/man/man1/odictl-*.1.gz | head -n 3); do
		man "$page" >"$state/page" 2>"$state/page.err" || why "man $page: $(head -n 1 "$state/page.err")" || return
		grep -q NAME "$state/page" || why "man $page shows no NAME" || return
		[ ! -s "$state/page.err" ] || why "man $page: $(head -n 1 "$state/page.err")" || return
	done
}

complete_line() { # LINE: what bash would offer, as a login shell of a user has it
	bash -c '
		. /usr/share/bash-completion/bash_completion
		_completion_loader odictl 2>/dev/null || __load_completion odictl
		f=$(complete -p odictl | sed -n "s/.*-F \([^ ]*\).*/\1/p")
		COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		$f 2>/dev/null
		printf "%s\n" "${COMPREPLY[@]}"' bash "$1"
}

completes() {
	complete_line "odictl prof" | grep -q '^profiling' || why "odictl prof<TAB>: $(complete_line 'odictl prof' | head -n 3)" || return
	complete_line "odictl source show " | grep -q '^known-work' ||
		why "odictl source show <TAB>: $(complete_line 'odictl source show ' | tr '\n' ' ')"
}

reloads() {
	local pid
	pid=$(main_pid)
	mkdir -p /etc/odi/conf.d
	printf 'host:\n  labels: {vm: reloaded-while-running}\n' >/etc/odi/conf.d/50-test.yaml
	touch "$state/reloaded"
	await 90 received reloaded-while-running "$state/reloaded" || why "what a file in conf.d says does not act" || return
	systemctl reload odi || why "systemctl reload odi fails" || return
	sleep 2
	[ "$(main_pid)" = "$pid" ] || why "agentd was restarted" || return
	status_is 'd["profiling"]["enabled"]' || why "it no longer profiles"
}

watchdog_is_fed() {
	[ "$(systemctl show -p NRestarts --value odi)" = 0 ] || why "it was restarted $(systemctl show -p NRestarts --value odi) times" || return
	[ "$(systemctl show -p Type --value odi)" = notify ] || why "Type=$(systemctl show -p Type --value odi)" || return
	[ "$(systemctl show -p WatchdogUSec --value odi)" != 0 ] || why "no watchdog"
}

# Each of the units tries, as it is in force here, what it must not do and what it must: its own cases, in the log.
is_confined() {
	local status=0 cases=$state/inside
	sh /test/guest/inside.sh >"$cases" || status=$?
	cat "$cases"
	! grep '^not ok' "$cases" || why "$(grep -h '^not ok' "$cases" | cut -d - -f 2- | tr '\n' ',')" || return
	[ "$status $(($(grep -c '^ok' "$cases") >= 30))" = "0 1" ] || why "exit status $status after $(wc -l <"$cases") cases"
}

named_objects() {
	{
		odictl source list --json
		odictl destination list --json
	} | grep -o '"name": *"[^"]*"' | sort | tr '\n' ' '
}

upgrades() {
	local pid settings
	pid=$(main_pid)
	settings=$(named_objects) || return
	mkdir -p /srv/odi
	cp /test/new/*.deb /srv/odi/
	index_packages /srv/odi
	echo "deb [trusted=yes] file:/srv/odi ./" >/etc/apt/sources.list.d/odi.list
	apt-get update || return
	touch "$state/upgraded"
	ends_at as_typed 300 "$(readme_line 'sudo apt upgrade')" || why "apt upgrade failed: $(tail -n 3 "$state/log" | tr '\n' ' ')" || return
	[ "$(dpkg-query -W -f '${db:Status-Status} ${Version}' odi)" = "installed $new_version" ] ||
		why "$(dpkg-query -W odi 2>&1) is installed, not $new_version" || return
	await 60 systemctl -q is-active odi || why "odi.service is $(systemctl is-active odi)" || return
	[ "$(main_pid)" != "$pid" ] || why "the former agentd still runs" || return
	await 60 status_is 'd["profiling"]["enabled"] and d["ledger"]["profiled"] > 0' || why "it no longer profiles" || return
	[ -e /etc/odi/conf.d/50-test.yaml ] || why "a file in conf.d is gone" || return
	[ "$(named_objects)" = "$settings" ] || why "sources and destinations were $settings, are $(named_objects)" || return
	await 90 received known-work "$state/upgraded" || why "nothing arrives any more" || return
	nothing_lost
}

# What is profiled from now on cannot be sent: it is to come out of the spool after the reboot.
holds() {
	stop_receiver
	date +%s.%N >"$state/unsent_from"
	# two: the first one may have begun before
	await 120 status_is 'd["ledger"]["destinations"]["inside"]["held"] > 200 and
		[x for x in d["destinations"] if x["name"] == "inside" and x["queued_batches"] >= 2]' || why "nothing is held" || return
	odictl destination show inside
	# not healthy, and says so by its exit status
	odictl status --json >"$state/status-held.json" || [ -s "$state/status-held.json" ]
}

case_of "apt installs the package, and what it needs from the distribution" installs
case_of "after that it runs, is enabled, and has loaded and sampled nothing" runs_idle
case_of "the units are as hard as systemd-analyze is to find them" units_are_hardened
user_units
case_of "odictl profiling enable --all && odictl top --watch" enables
case_of "odictl top prints what runs" top_prints
case_of "a real unit is a source, and its profile arrives at a receiver" adds_source
case_of "odictl status is healthy, and its ledger closes" status_is_healthy
case_of "odictl doctor finds no failure" doctor_finds_nothing
case_of "systemctl status, journalctl and man at a terminal" looks_as_written
case_of "journalctl -u odi has what agentd said, and not much" journal_speaks
case_of "man shows the pages" manual_is_there
case_of "bash completes commands and names" completes
case_of "a changed file acts without a restart" reloads
case_of "systemd is told that it is ready, and that it lives" watchdog_is_fed
case_of "apt upgrade from a repository keeps what was set, and goes on" upgrades
case_of "each process tries what it must not do, and fails" is_confined
case_of "what cannot be sent is held" holds
