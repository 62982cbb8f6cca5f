; bits: 64
; native: yes
; expect: rax=1 rbx=0 rcx=1
bits 64
org 0x10000000
    mov rsi, data
    mov edx, 5
    cmp edx, 5
    mov rdi, [rsi]                  ; flags live across a load
    setz al
    movzx eax, al
    mov r8, -1
    add r8, 1                       ; CF
    mov [rsi + 8], r8
    mov rbx, 0
    adc ebx, 0
    dec ebx
    stc
    inc dword [rsi]                 ; keeps CF
    setc cl
    mov r9d, 0x7fffffff
    add r9d, 1                      ; OF
    push r9
    pop r9
    seto r10b
    hlt
align 16
data: times 64 db 0
