; bits: 64
; native: no
; expect: exception=14 cr2=0x10200000 rcx=744 rsi=0x10030100 rdi=0x10200000
bits 64
org 0x10000000
    mov rsi, 0x10030000
    mov rdi, 0x101fff00             ; 256 bytes from here nothing is mapped
    mov rcx, 1000
    rep movsb
    hlt
