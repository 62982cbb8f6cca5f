; bits: 32
; native: no
; expect: exception=0 rsp=0x101ffff4 rax=0x77 rdx=0
; A division error among PUSHes finds ESP where it belongs.
bits 32
org 0x10000000
    mov esp, 0x10200000
    xor edx, edx
    xor ecx, ecx
    mov eax, 0x77
    push eax
    push edx
    push 0x88
    div ecx
    push eax
    push eax
    hlt
