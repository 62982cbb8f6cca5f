; bits: 64
; native: yes
; expect: rax=0x1122334455667788 rbx=0x8877
bits 64
org 0x10000000
    mov rsi, 0x10001ffd
    mov rax, 0x1122334455667788
    mov [rsi], rax
    xor eax, eax
    mov rax, [rsi]
    movzx ebx, word [rsi]
    xchg bl, bh
    movdqu xmm3, [rsi - 9]
    lock xadd [rsi - 2], r12
    jmp over
    times (0x1000 - 3 - ($ - $$)) nop
over:
    mov r8d, 0x12345678             ; lies on both pages
    hlt
