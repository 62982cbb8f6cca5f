# What network_test.py runs in the guest. /network came with the initramfs: how the card's modules are loaded, the host's ports.
part() { echo "@@ $1"; }
. /network/settings
. /network/modules
ip link set lo up
ip link set eth0 up

part address
cat /sys/class/net/eth0/address
part driver
basename "$(readlink /sys/class/net/eth0/device/driver)"
part dhcp
udhcpc -i eth0 -n -q -t 20 -T 1 -s /network/lease 2>&1
part routes
ip route
part ping
ping -c 3 -w 20 10.0.2.2
part download
wget -q -O - "http://10.0.2.2:$http/file" | sha256sum
part upload
sha256sum </network/data
nc 10.0.2.2 "$sink" </network/data
part echo
nc -l -p 7777 -e cat &
until netstat -ltn | grep -q :7777; do sleep 0.1; done
echo listening
wait
part entropy
if [ -e /dev/hwrng ]; then
  cat /sys/class/misc/hw_random/rng_current
  head -c 1000 /dev/hwrng | wc -c
fi
part counters
grep eth0 /proc/net/dev
part interrupts
cat /proc/interrupts
part dmesg
dmesg -r
part end
