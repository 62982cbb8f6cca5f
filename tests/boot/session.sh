# The scripted session that session_test.py runs in the guest and checks. Each part prints "@@ name", its output, and
# in the end "@@ end". /data/file and /data/file.gz came with the initramfs.
part() { echo "@@ $1"; }

part mounts
grep -E '^(proc|sys|dev|tmp) ' /proc/mounts
part uname
uname -a
part machine
uname -m
part cpuinfo
cat /proc/cpuinfo
part memory
grep -E 'MemTotal|MemFree' /proc/meminfo
part interrupts
cat /proc/interrupts
part clock
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
part date
date -u +%s
part sleep
read -r before _ </proc/uptime
sleep 2
read -r after _ </proc/uptime
echo "$before $after"

part forks
i=0
while [ $i -lt 200 ]; do
  (exit $((i % 7))) || true
  i=$((i + 1))
done
echo "$i"
part execs
i=0 sum=0
while [ $i -lt 100 ]; do
  sum=$((sum + $(/bin/busybox expr $i \* $i)))
  i=$((i + 1))
done
echo "$sum"
part pipes
seq 1 2000 | while read -r n; do echo $((n * n % 1009)); done | cat | sort -n | uniq -c | md5sum
part pipeline
seq 1 20000 | cat | tr 0-9 a-j | sort -r | cat | rev | sha256sum
part background
for i in 1 2 3 4 5 6 7 8; do (seq 1 $((i * 1000)) | md5sum >/tmp/sum.$i) & done
wait
cat /tmp/sum.[1-8] | md5sum
part signals
trap 'echo caught' USR1
kill -USR1 $$
sh -c 'kill -SEGV $$'
echo $?
part awk
awk 'BEGIN { for (i = 1; i <= 20000; i++) s += (i % 97) / i; printf "%.9f\n", s }'

part md5sum
md5sum </data/file
part sha256sum
sha256sum </data/file
part sha512sum
sha512sum </data/file
part gunzip
gunzip -c /data/file.gz | sha256sum
part gzip
gzip -c /data/file | gunzip -c | sha256sum
part bzip2
head -c 200000 /data/file | bzip2 -c | bunzip2 -c | sha256sum
part tmpfs
cp /data/file /tmp/copy
cat /tmp/copy /tmp/copy >/tmp/twice
sync
sha256sum </tmp/twice
part cpio
mkdir -p /tmp/tree/a/b && cp /data/file /tmp/tree/a/b/ && ln -s b /tmp/tree/a/c
(cd /tmp/tree && tar -c . | (mkdir -p /tmp/tree2 && cd /tmp/tree2 && tar -x))
sha256sum </tmp/tree2/a/c/file
part urandom
dd if=/dev/urandom of=/tmp/random bs=4096 count=256 2>/dev/null
dd if=/dev/urandom of=/tmp/random2 bs=4096 count=256 2>/dev/null
wc -c </tmp/random
cmp -s /tmp/random /tmp/random2 && echo same || echo differ
gzip -c /tmp/random | wc -c
part urandom-end

part modules
ls /proc | grep -c '^[0-9]'
part dmesg
dmesg -r
part end
