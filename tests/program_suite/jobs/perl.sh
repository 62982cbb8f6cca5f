# Perl: regular expressions, hashes, big numbers, sorting, formats, processes.
cat >work.pl <<'P'
use strict; use warnings; use Digest::SHA qw(sha256_hex); use Math::BigInt; use Math::BigFloat; use POSIX; use Storable; use Time::Local; use List::Util qw(sum shuffle reduce); use MIME::Base64; use Data::Dumper; use Compress::Zlib; use Encode;
binmode STDOUT, ':utf8'; $Data::Dumper::Sortkeys = 1;
my $seed = 12345; sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed % $_[0]; }
my @words = map { join '', map { chr(97 + rnd(26)) } 1 .. 2 + rnd(9) } 1 .. 20000;
print "perl $]\n";
my %count; $count{$_}++ for map { substr $_, 0, 2 } @words;
print "hash ", sha256_hex(join ',', map { "$_=$count{$_}" } sort keys %count), "\n";
print "sort ", sha256_hex(join ',', sort { length $a <=> length $b or $a cmp $b } @words), "\n";
my $text = join ' ', @words;
for my $re (qr/(\w)\1/, qr/\b(\w)\w*\1\b/, qr/(?<=a)[^aeiou ]{3,}(?=e)/, qr/(?:ab|cd|ef)+/, qr/^(?:(?!zz).)*?q/s, qr/(\w+) (?=\w*x)/, qr/(?i)[QZ]{2}/) {
  my $matches = () = $text =~ /$re/g; print "match $re $matches\n";
}
(my $changed = $text) =~ s/([aeiou])([^aeiou ])/$2\U$1/g; print "substitute ", sha256_hex($changed), "\n";
($changed = $text) =~ tr/a-y/b-z/; print "translate ", sha256_hex($changed), "\n";
my $factorial = Math::BigInt->new(200)->bfac; print "factorial $factorial\n";
print "pi ", Math::BigFloat->bpi(120), "\n", "root ", Math::BigFloat->new(2)->bsqrt(100), "\n";
print "gcd ", Math::BigInt->new('123456789012345678901234567890')->bgcd('987654321098765432109876543210'), "\n";
print "power ", Math::BigInt->new(3)->bmodpow('12345678901234567890', '1000000007'), "\n";
my @numbers = map { sin($_) * exp($_ / 50) / (1 + sqrt $_) + atan2($_, 3) - log($_ + 1) } 0 .. 2000;
print "floats ", sha256_hex(join ',', map { sprintf '%.15g %a', $_, $_ } @numbers), "\n";
printf "%s %s %s %s\n", 0.1 + 0.2, 1e300 * 1e10, -17 % 5, 2 ** 62; printf "%b %o %x %e %s\n", 1234567, 1234567, 1234567, 1234567, 9007199254740993;
print "pack ", unpack('H*', pack 'nNvVCw/a*d>f<q>', 1, 2, 3, 4, 5, 'six', 7.5, 8.25, -9), "\n";
my $data = { list => [1 .. 50], map => { map { $_ => $_ ** 2 } 1 .. 50 }, text => "\x{263a}" };
print "dumper ", sha256_hex(Dumper($data)), "\n"; print "storable ", sha256_hex(Dumper(Storable::dclone($data))), "\n";
print "base64 ", sha256_hex(encode_base64($text)), ' ', decode_base64(encode_base64($text)) eq $text, "\n";
print "zlib ", length(Compress::Zlib::memGzip($text)) > 1000, ' ', Compress::Zlib::memGunzip(Compress::Zlib::memGzip($text)) eq $text, "\n";
print "time ", timegm(5, 4, 3, 2, 1, 2001), ' ', strftime('%Y-%m-%d %H:%M:%S %j %U', gmtime 1e9), "\n";
print "utf8 ", encode('UTF-16BE', "a\x{e9}\x{1f600}") =~ s/(.)/sprintf '%02x', ord $1/gser, ' ', lc "ÄÖÜ", "\n";
my $queens; my $place; $place = sub { my ($n, $row, $columns, $left, $right) = @_; return 1 if $row == $n; my $found = 0; for my $c (0 .. $n - 1) { next if $columns & 1 << $c or $left & 1 << $row + $c or $right & 1 << $row - $c + $n; $found += $place->($n, $row + 1, $columns | 1 << $c, $left | 1 << $row + $c, $right | 1 << $row - $c + $n) } $found };
print "queens ", $place->(7, 0, 0, 0, 0), "\n";
for my $i (1 .. 20) { my $pid = open my $pipe, '-|'; if (!$pid) { print $i * $i; exit $i } my $answer = <$pipe>; close $pipe; print "child $answer ", $? >> 8, "\n" }
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; 1 while 1 }; print "eval $@"; eval { my $zero = 0; my $x = 1 / $zero }; print "eval $@";
print "deep ", (sub { my ($f, $n) = @_; $n ? 1 + $f->($f, $n - 1) : 0 })->(sub { my ($f, $n) = @_; no warnings; $n ? 1 + $f->($f, $n - 1) : 0 }, 20000), "\n";
my @shuffled = map { $_->[1] } sort { $a->[0] <=> $b->[0] or $a->[1] cmp $b->[1] } map { [rnd(1000), $_] } @words; print "shuffle ", sha256_hex("@shuffled"), "\n";
print "strings ", sha256_hex(join '', map { reverse(ucfirst $_) . sprintf('%-12s|%5.2f', $_, length($_) / 3) . index($text, $_) } @words[0 .. 999]), "\n";
P
perl work.pl
