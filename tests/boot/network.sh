# What network_test.py runs in the guest. /network came with the initramfs: the card's modules, their order, the host's ports.
part() { echo "@@ $1"; }
. /network/settings

for module in $modules; do insmod "/network/$module.ko" || echo "no $module"; done
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
part counters
grep eth0 /proc/net/dev
part interrupts
cat /proc/interrupts
part dmesg
dmesg -r
part end
