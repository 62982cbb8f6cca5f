; bits: 64
; native: no
; expect: exception=14 cr2=0x10200000 r9=0x20 r10=0x101fff00 r11=0x10200000 r12=0x12 r13=0x13 r14=0x14 r15=0x15 r8=8 rbp=0x55
; A page fault in a loop finds every register in its place.
bits 64
org 0x10000000
    mov r8d, 8
    mov ebp, 0x55
    mov r12d, 0x12
    mov r13d, 0x13
    mov r14d, 0x14
    mov r15d, 0x15
    xor r9d, r9d
    mov r10d, 0x101fff00
    mov r11, r10
walk:
    mov rax, [r11]
    add r9d, 1
    add r11, 8
    test r11, r11
    jnz walk
    hlt
