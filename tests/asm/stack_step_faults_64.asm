; bits: 64
; native: no
; expect: exception=14 cr2=0x10200000 rsp=0x10200000 rax=0x77 rbx=0x88 rcx=0 rdx=0x11
; A page fault among POPs finds RSP where it belongs.
bits 64
org 0x10000000
    mov rdi, 0x101ffff0
    mov qword [rdi], 0x88
    mov qword [rdi + 8], 0x77
    mov rsp, rdi
    mov edx, 0x11
    add edx, 0
    pop rbx
    pop rax
    pop rcx
    hlt
