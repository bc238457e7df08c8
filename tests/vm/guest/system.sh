# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a fresh debootstrap a system that boots in QEMU (run in it by tests/vm/root.sh): system.sh SUITE ARCHITECTURE
set -euo pipefail
suite=$1
arch=$2
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# Nothing is started while the system is being made, and the initrd holds what the disk needs and no more.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
sed -i 's/^MODULES=.*/MODULES=list/' /etc/initramfs-tools/initramfs.conf
printf '%s\n' virtio_pci virtio_blk ext4 >>/etc/initramfs-tools/modules

apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root -o Acquire::Languages=none update
apt-get -qq -y -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 --no-install-recommends -t "$suite" install \
	"linux-image-cloud-$arch"
rm -f /usr/sbin/policy-rc.d

# What a machine has of its own, what would only take time here, and what runs the tests at each boot.
echo guest >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 guest\n' >/etc/hosts
: >/etc/resolv.conf
systemd-machine-id-setup >/dev/null
mkdir -p /var/log/journal /test
echo '/dev/vdb /test ext4 ro 0 0' >/etc/fstab
systemctl -q mask apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer \
	e2scrub_reap.service getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service \
	dpkg-db-backup.timer logrotate.timer
cat >/etc/systemd/system/test.service <<'UNIT'
[Unit]
Description=The tests of this boot
RequiresMountsFor=/test

[Service]
Type=idle
ExecStart=/bin/bash /test/guest/steps.sh
StandardOutput=journal
# the tests themselves are no work to be profiled
TimeoutStopSec=5

[Install]
WantedBy=multi-user.target
UNIT
systemctl -q enable test.service

# No network inside: packages come from the tests' own disk.
: >/etc/apt/sources.list
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
