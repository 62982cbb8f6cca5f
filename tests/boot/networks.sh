# What networks_test.py runs in the guest. /network came with the initramfs: how the card's
# module is loaded, the host's port, how long to wait for what may be out of reach, whether a connection comes.
part() { echo "@@ $1"; }
. /network/settings
. /network/modules
ip link set lo up
for card in eth0 eth1; do
  [ -e /sys/class/net/$card ] && ip link set $card up
done

part dhcp
udhcpc -i eth0 -n -q -t 20 -T 1 -s /network/lease 2>&1
part name
timeout $seconds nslookup penumbra.test 10.0.2.3 2>&1
echo "status $?"
part tftp
cd /tmp
timeout 60 tftp -g -r folder/file 10.0.2.2 2>&1
echo "status $?"
sha256sum file
part host
timeout $seconds wget -q -O - "http://10.0.2.2:$http/" 2>&1
echo "status $?"
if [ -e /sys/class/net/eth1 ]; then
  part tap
  ip addr add 192.168.77.2/24 dev eth1
  ping -c 3 -w 20 192.168.77.1
  timeout 60 wget -q -O - "http://192.168.77.1:$http/" | sha256sum
fi
part forward
if [ "$forward" ]; then
  nc -l -p 7777 -e cat &
  until netstat -ltn | grep -q :7777; do sleep 0.1; done
fi
echo listening
wait
part dmesg
dmesg -r
part end
