# What virtio_test.py runs in the guest. /virtio came with the initramfs: how the modules are loaded.
. /virtio/modules
kib() { sed -n "s/^$1: *\([0-9]*\) kB/\1/p" /proc/meminfo; }
until [ -e /dev/hvc0 ] && [ -e /dev/vport0p1 ]; do sleep 0.1; done
cat /sys/class/virtio-ports/vport0p1/name
echo "from the console" >/dev/hvc0
echo "from the port" >/dev/vport0p1
# Memory that the host has given and the guest needs no more.
dd if=/dev/zero of=/dev/shm/filled bs=1M count=160 2>/dev/null || dd if=/dev/zero of=/tmp/filled bs=1M count=160
rm -f /dev/shm/filled /tmp/filled
whole=$(kib MemTotal)
echo "ready $whole"
until [ $((whole - $(kib MemTotal))) -ge 250000 ]; do sleep 0.1; done
echo shrunk
until [ $((whole - $(kib MemTotal))) -lt 5000 ]; do sleep 0.1; done
echo grown
dmesg -r
echo "@@ end"
# The host asks its last questions, then ends the machine.
while :; do sleep 1; done
