# Every digest, cipher and kind of key: the digests and deterministic ciphertexts themselves, and whether what one command makes
# another takes.
bytes() { python3 -c 'import random, sys; random.seed(int(sys.argv[1])); sys.stdout.buffer.write(random.randbytes(int(sys.argv[2])))' "$1" "$2"; }
sizes="0 1 15 16 17 63 64 65 1000 100000" cipher_sizes="16 1000 100000"
[ -z "$SLICE" ] || sizes="0 65 1000" cipher_sizes=1000
for size in 16 $sizes; do bytes "$size" "$size" >"data.$size"; done
ours() { grep -v '^  *@ default' | tr -s ' \n\t' '\n' | grep -E '^-?[a-z0-9][a-zA-Z0-9-]*$' | sed 's/^-//' | sort -u; }

openssl version
for digest in $(openssl list -digest-commands | ours); do
  for size in $sizes; do
    echo "$digest $size $(openssl dgst "-$digest" -r <"data.$size" 2>&1 | cut -d' ' -f1)"
  done
  echo "$digest hmac $(openssl dgst "-$digest" -hmac secret -r <data.1000 2>&1 | cut -d' ' -f1 | head -n 1)"
done
key=$(seq 1 40 | md5sum | cut -c 1-32)$(seq 2 40 | md5sum | cut -c 1-32)
for cipher in $(openssl list -cipher-commands | ours) chacha20 aes-128-ctr aes-256-cfb1 aes-192-cfb8 aes-128-wrap sm4-ctr camellia-256-ctr; do
  for size in $cipher_sizes; do
    if openssl enc "-$cipher" -K "$key" -iv "${key:0:32}" -in "data.$size" -out sealed 2>/dev/null; then
      openssl enc -d "-$cipher" -K "$key" -iv "${key:0:32}" -in sealed -out opened 2>/dev/null
      cmp -s opened "data.$size" && same=opens || same="DOES NOT OPEN"
      echo "$cipher $size $(sha256sum <sealed | cut -c 1-16) $same"
    else
      echo "$cipher $size: not with enc"
    fi
  done
  echo password | openssl enc "-$cipher" -pbkdf2 -iter 1000 -S 0102030405060708 -in data.1000 -out sealed -pass stdin 2>/dev/null &&
    echo "$cipher pbkdf2 $(sha256sum <sealed | cut -c 1-16)"
done

[ -z "$SLICE" ] || exit 0

sign() {
  local name=$1
  shift
  openssl genpkey "$@" -out key.pem 2>/dev/null || { echo "$name: no key"; return; }
  openssl pkey -in key.pem -pubout -out public.pem
  openssl pkey -in key.pem -check -noout >/dev/null 2>&1 && echo "$name: the key is valid" || echo "$name: no check of the key"
  for size in 16 1000; do
    case $name in
      ed*) openssl pkeyutl -sign -rawin -inkey key.pem -in "data.$size" -out signature 2>/dev/null &&
        openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in "data.$size" -sigfile signature ;;
      *) openssl dgst -sha256 -sign key.pem -out signature "data.$size" 2>/dev/null &&
        openssl dgst -sha256 -verify public.pem -signature signature "data.$size" ;;
    esac
  done
}
for length in 1024 2048; do sign "rsa $length" -algorithm RSA -pkeyopt "rsa_keygen_bits:$length"; done
for curve in $(openssl ecparam -list_curves | sed -nE 's/^ *([a-zA-Z0-9-]+) *:.*/\1/p'); do
  sign "$curve" -algorithm EC -pkeyopt "ec_paramgen_curve:$curve"
done
for kind in ed25519 ed448; do sign $kind -algorithm $kind; done
for kind in X25519 X448; do
  openssl genpkey -algorithm $kind -out a.pem && openssl genpkey -algorithm $kind -out b.pem
  openssl pkey -in a.pem -pubout -out a.pub && openssl pkey -in b.pem -pubout -out b.pub
  openssl pkeyutl -derive -inkey a.pem -peerkey b.pub -out ab && openssl pkeyutl -derive -inkey b.pem -peerkey a.pub -out ba
  cmp ab ba && echo "$kind: both ends agree"
done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem 2>/dev/null
for padding in oaep pkcs1; do
  openssl pkeyutl -encrypt -inkey rsa.pem -pkeyopt rsa_padding_mode:$padding -in data.16 -out sealed &&
    openssl pkeyutl -decrypt -inkey rsa.pem -pkeyopt rsa_padding_mode:$padding -in sealed | cmp - data.16 && echo "rsa $padding opens"
done
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.pem -out ca.crt -subj /CN=authority -days 3650 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.pem -out server.csr -subj /CN=server 2>/dev/null
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.pem -CAcreateserial -out server.crt -days 365 2>/dev/null
openssl verify -CAfile ca.crt server.crt
# TLS with each kind of cipher suite.
for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256 ECDHE-ECDSA-AES128-GCM-SHA256 \
  ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES128-SHA256 ECDHE-ECDSA-AES256-CCM ECDHE-ECDSA-CAMELLIA128-SHA256; do
  case $suite in TLS_*) option="-tls1_3 -ciphersuites" ;; *) option="-tls1_2 -cipher" ;; esac
  openssl s_server -accept 127.0.0.1:4433 -cert server.crt -key server.pem -rev -quiet $option $suite >/dev/null 2>&1 &
  for _ in $(seq 100); do
    # The client ends with its input: the answer has a second to come.
    answer=$( (echo hello && sleep 1) |
      timeout 60 openssl s_client -connect 127.0.0.1:4433 -CAfile ca.crt -verify_return_error -quiet -no_ign_eof $option $suite 2>/dev/null)
    [ -z "$answer" ] || break
    sleep 0.1
  done
  kill %1 && wait %1 2>/dev/null
  echo "$suite $answer"
done
openssl prime -generate -bits 256 -hex | xargs openssl prime -hex | grep -o 'is prime'
openssl kdf -keylen 64 -kdfopt digest:SHA256 -kdfopt pass:x -kdfopt salt:y -kdfopt iter:5000 PBKDF2
openssl kdf -keylen 64 -kdfopt pass:x -kdfopt salt:y -kdfopt n:1024 -kdfopt r:8 -kdfopt p:2 SCRYPT
