#!/bin/bash
# Process 1 of dom0: its file systems, Xen's daemons, and the lab's agent, for which it reaps.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
set -e
trap 'echo o >/proc/sysrq-trigger; sleep 60' EXIT
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
mkdir -p /run/lock /run/xen /run/netns /var/log/xen /var/lib/xen /var/lib/xenstored
hostname dom0
ip link set lo up
for module in virtio_console xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xen-netback bridge; do
    modprobe "$module"
done
modprobe xenfs
mount -t xenfs xenfs /proc/xen
mount -t tmpfs tmpfs /var/lib/xenstored
xen=$(echo /usr/lib/xen-4*/bin)
"$xen/xenstored" --pid-file /run/xenstored.pid
until xenstore-exists / 2>/dev/null; do sleep 0.05; done
"$xen/xen-init-dom0"
"$xen/xenconsoled" --pid-file=/run/xenconsoled.pid --log=all --log-dir=/var/log/xen
tar -C / -xf /dev/vdb
cd /usr/lib/cgw-lab/checkout
python3 -m tests.lab.xen.agent &
agent=$!
while kill -0 "$agent" 2>/dev/null; do wait "$agent" || true; done
