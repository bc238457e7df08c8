# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What a guest does at each of its boots (run by its test.service as root): what an administrator does with the
# package, in that order, from installing it to purging it, with a reboot in the middle.
# shellcheck source=tests/vm/guest/lib.sh
. /test/guest/lib.sh
# shellcheck source=tests/vm/guest/index.sh
. /test/guest/index.sh

boot=$(($(cat "$state/boot" 2>/dev/null || echo 0) + 1))
echo $boot >"$state/boot"
sync
tell "guest: boot $boot of $(uname -r) took $(cut -d ' ' -f 1 /proc/uptime) s"
echo "$boot $(date +%s.%N) $(cut -d ' ' -f 1 /proc/uptime)" >>"$state/boots"
uname -r >"$state/release"

case $boot in
1)
	# Emulated, each package that is only recommended, and each flush, costs seconds.
	echo 'APT::Install-Recommends "0";' >/etc/apt/apt.conf.d/90test
	echo 'Acquire::Languages "none";' >>/etc/apt/apt.conf.d/90test
	echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/test
	# the index of manual pages, made anew after each package
	rm -f /var/lib/man-db/auto-update
	echo man-db man-db/auto-update boolean false | debconf-set-selections
	. /test/guest/first_boot.sh
	tell "guest: boot 1 ends after $(cut -d ' ' -f 1 /proc/uptime) s"
	systemctl reboot
	;;
2)
	. /test/guest/second_boot.sh
	tell "guest: boot 2 ends after $(cut -d ' ' -f 1 /proc/uptime) s"
	journalctl -b -1 --no-pager >"$state/journal.1"
	journalctl -b 0 --no-pager >"$state/journal.2"
	journalctl -o short-unix --no-pager -u odi | grep 'profiling is on' | cut -d ' ' -f 1 >"$state/starts"
	dmesg >"$state/dmesg"
	sync
	tar -c -C "$state" . >/dev/vdc
	sync
	echo "guest: the end" >/dev/ttyS1
	systemctl poweroff
	;;
*)
	echo "not ok - the guest boots twice: boot $boot" >/dev/ttyS1
	systemctl poweroff
	;;
esac
exec sleep infinity
