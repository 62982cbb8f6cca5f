# What virtio_test.py runs in the guest: a conversation on the virtio console.
. /virtio/modules
until [ -e /dev/hvc0 ]; do sleep 0.1; done
stty -F /dev/hvc0 -echo
exec </dev/hvc0 >/dev/hvc0 2>&1
echo "who is there?"
read line
echo "hello, $line"
