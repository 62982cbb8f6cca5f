; bits: 64
; native: yes
; expect: rax=0x2a rbx=0x14 r10=0x33 zf=0 cf=1
bits 64
org 0x10000000
    mov eax, 21
    add eax, eax
    mov rbx, 20
    mov r9, 0x11
    mov r10, 0x22
    add r10, r9
    lea r11, [r10 + r9*4 + 5]
    mov [rel data], r11
    mov r8, [rel data]
    push r8
    push rax
    pop rcx
    pop rdx
    mov rsi, data
    mov ah, 0
    mov [rsi + 8], ah
    mov ch, [rsi]
    add byte [rsi + 16], 7
    inc qword [rsi + r9]
    cmp rbx, 21
    hlt
align 16
data: times 64 db 0
