; Reads and writes every port but the exit device's and those that reset the machine, in all three sizes.
%include "rom.inc"
main:   xor edx, edx
.port:  cmp dx, EXIT - 3
        jb .go
        cmp dx, EXIT + 3
        jbe .next
.go:    cmp dx, 0x61                            ; 8042: FE to port 64 resets
        jb .go2
        cmp dx, 0x64
        jbe .next
.go2:   cmp dx, 0x8f                            ; port 92, bit 0
        jb .go3
        cmp dx, 0x92
        jbe .next
.go3:   cmp dx, 0xcf6                           ; port CF9
        jb .go4
        cmp dx, 0xcf9
        jbe .next
.go4:   cmp dx, 0x600                           ; ACPI's power management on machines that have it
        jb .go5
        cmp dx, 0xc000
        jb .next
.go5:   in al, dx
        in ax, dx
        in eax, dx
        mov eax, VALUE
        out dx, al
        out dx, ax
        out dx, eax
.next:  inc dx
        jnz .port
        mov dx, COM1 + 3                        ; the UART's registers were written: 8 bits, no divisor access,
        mov al, 3
        out dx, al
        mov dx, COM1 + 4                        ; no loopback
        xor al, al
        out dx, al
        say "went on"
        ret
%include "end.inc"
