; bits: 32
; native: no
; expect: exception=14 cr2=0x10400000 rcx=744 rsi=0x10030100 rdi=0x10400000
bits 32
org 0x10000000
    mov esi, 0x10030000
    mov edi, 0x103fff00             ; 256 bytes from here nothing is mapped
    mov ecx, 1000
    rep movsb
    hlt
