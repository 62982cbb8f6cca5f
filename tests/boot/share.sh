# What share_test.py runs in the guest. /share came with the initramfs: how the modules are loaded, and what is shared.
. /share/modules
echo "the guest's own" >/inside
for tag in $(cat /share/tags); do
  mkdir -p /mnt/$tag
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 $tag /mnt/$tag || echo "$tag: not mounted"
done
cd /mnt/fixed
echo "fixed: $(cat note)"
for attempt in "touch new" "mkdir new" "rm note" "mv note other" "ln -s x new" "chmod 777 note" "truncate -s 0 note"; do
  $attempt 2>&1 | grep -q "Read-only file system" && echo "refused: $attempt"
done
for tag in $(cat /share/tags); do
  [ $tag != fixed ] || continue
  cd /mnt/$tag
  echo "$tag sum: $(sha256sum <big | cut -c 1-64)"
  cp big copy && dd if=/dev/urandom of=made bs=61 count=50000 2>/dev/null
  echo "$tag made: $(sha256sum <made | cut -c 1-64)"
  mkdir -p one/two && echo deep >one/two/file && mv one/two/file one/moved && mv one first
  echo more >>first/moved
  echo "$tag moved: $(cat first/moved | tr '\n' ' ')"
  ln -s first/moved link && ln -s /inside own && ln first/moved second
  echo "$tag link: $(readlink link), $(cat link | wc -l) lines; $(cat own); $(stat -c %h second)"
  echo "$tag escape: $(cat escape 2>&1)"
  echo "$tag above: $(ls -a ../$tag/.. | grep -c secret) $(cat up/secret 2>&1)"
  echo text >modes && chown 1234:567 modes && chmod 4750 modes && touch -d "2001-02-03 04:05:06" modes
  echo "$tag modes: $(stat -c '%a %u %g %Y' modes)"
  truncate -s 1000 sized && echo "$tag sized: $(stat -c %s sized)"
  mkfifo pipe && { echo "through the pipe" >pipe & } && echo "$tag pipe: $(cat pipe)"
  mkdir many && for i in $(seq 300); do echo $i >many/file$i; done
  echo "$tag many: $(ls many | wc -l) $(cat many/* | sort -n | tail -n 1)"
  rm many/file?? && echo "$tag fewer: $(ls many | wc -l)"
  mkdir gone && rmdir gone && [ ! -e gone ] && echo "$tag rmdir"
  echo still >unnamed && exec 5<unnamed && rm unnamed && echo "$tag unnamed: $(cat <&5)" && exec 5<&-
  df . >/dev/null && echo "$tag df"
  cd /
  umount /mnt/$tag && echo "$tag unmounted"
done
dmesg -r
echo "@@ end"
poweroff -f
