# bc, gawk, sed, grep, sort, diff and shell arithmetic.
bc -l <<'B'
scale=60
4*a(1); e(1); l(2); s(1); c(1); j(2,3)
define f(n) { if (n < 2) return 1; return n * f(n - 1); }
f(120)
define p(b, e, m) { auto r; r = 1; scale = 0; while (e > 0) { if (e % 2) r = r * b % m; b = b * b % m; e = e / 2 }; return r; }
p(3, 10^60 + 7, 10^50 + 151)
scale=200; sqrt(2); 1/7
obase=16; 2^300 - 19; obase=2; 12345678901234567890; obase=10; ibase=16; DEADBEEFCAFE; ibase=A
for (i = 2; i < 400; i++) { k = 1; scale = 0; for (j = 2; j * j <= i; j++) if (i % j == 0) k = 0; if (k) print i, " " }
B
echo
seed() { gawk 'BEGIN { srand(3); for (i = 0; i < 20000; i++) { w = ""; n = 1 + int(rand() * 8); for (j = 0; j < n; j++) w = w sprintf("%c", 97 + int(rand() * 26)); print w, int(rand() * 1000), rand() } }'; }
seed >data
sha256sum data
gawk '{ c[substr($1, 1, 1)]++; s += $2; q += $3 * $3; if ($1 ~ /(ab|ba)+c?/) m++ } END { n = asorti(c, k); for (i = 1; i <= n; i++) printf "%s %d\n", k[i], c[k[i]]; printf "%d %.12f %d\n", s, q, m }' data
gawk -M 'BEGIN { PREC = 300; printf "%.80f\n", atan2(0, -1); x = 1; for (i = 1; i < 100; i++) x *= i; print x; print 2 ^ 521 - 1 }'
gawk 'BEGIN { for (i = 0; i < 300; i++) printf "%s", sprintf("%.10g %c %x %e|", sin(i) * exp(i / 30), 65 + i % 26, i * i, i / 7) }' | sha256sum
gawk '{ print gensub(/([aeiou])([a-z])/, "\\2<\\1>", "g", $1), toupper($1), length($1), index($1, "e"), substr($1, 2, 3), strftime("%F", $2 * 86400, 1) }' data | sha256sum
gawk 'BEGIN { while (("seq 5 | tr 1-5 a-e" | getline line) > 0) print "line", line; print and(0xff, 0x3c), or(1, 6), xor(5, 9), lshift(3, 5), rshift(100, 2), compl(0), strtonum("0x1f") }'
for key in -k1 "-k2n -k1" "-k3g" -r "-u -k1,1" "-k2nr -k3"; do printf '%s ' "$key"; sort $key data | sha256sum; done
for pattern in '^[aeiou].*[0-9]{3} ' '(.)\1' 'x[^ ]*z' '\b[a-m]+ 5' '(ab|cd|ef)g?'; do printf '%s ' "$pattern"; grep -E -c "$pattern" data; grep -E -o "$pattern" data | sha256sum; done
grep -P -c '(?<=q)u|(\w)(\w)\2\1' data
sed -E 's/([a-z]+) ([0-9]+) (.*)/\3 \2 \1/; y/abc/xyz/; /^0\.5/d; 3~7s/$/!/' data | sha256sum
sed -n '1!G;h;$p' <(head -n 2000 data) | sha256sum
seq 1 3000 >a
seq 1 7 3000 | sed 's/$/x/' | cat - <(seq 500 2500) >b
diff a b | sha256sum
diff -u a b >patch; diff -y a b | sha256sum; comm -3 <(sort a) <(sort b) | sha256sum
join <(sort a) <(sort b) | sha256sum
tac data | cut -c 3-9 | tr a-z A-Z | fold -w 3 | uniq -c | sort -rn | head -n 20
split -n 7 data part. && cat part.* | cmp - data && echo split
paste -d, a b | nl | expand | sha256sum
od -A x -t x1z data | head -n 3
for sum in cksum md5sum sha1sum sha224sum sha384sum sha512sum b2sum sum base64; do printf '%s ' "$sum"; $sum <data | sha256sum; done
factor 18446744073709551557 340282366920938463463374607431768211297 123456789012345678901234567890
numfmt --to=iec 123456789 9876543210
x=1; for ((i = 0; i < 20000; ++i)); do ((x = (x * 6364136223846793005 + 1442695040888963407) ^ x >> 7)); done; echo $x
f() { local n=$1; if ((n < 2)); then r=$n; else f $((n - 1)); local a=$r; f $((n - 2)); ((r += a)); fi; }; f 16; echo $r
for i in $(seq 300); do (exit $((i % 7))); printf %d $?; done; echo
find /usr/lib/python3.11 -name '*.py' -size +20k | sort | xargs wc -l | tail -n 1
find /usr/include -type f | sort | xargs cat | sha256sum
