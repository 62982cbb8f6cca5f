; bits: 64
; native: yes
; expect: rax=0 rbx=0x78 rcx=0 rdx=0x10
; Loops that walk several arrays, upwards and downwards, with flags that live from round to round, and one that is left early.
bits 64
org 0x10000000
    mov rsi, first
    mov rdi, second
    lea r10, [rdi + 256]
    mov ecx, 16
fill:
    mov [rsi], rcx
    mov [rdi], rcx
    mov qword [r10], -1
    add rsi, 8
    lea rdi, [rdi + 8]
    add r10, 16
    sub ecx, 1
    jnz fill
    mov rsi, first
    mov rdi, second
    mov ecx, 16
    clc
sum:                                ; the carry is kept
    mov rax, [rsi]
    adc [rdi], rax
    lea rsi, [rsi + 8]
    lea rdi, [rdi + 8]
    dec ecx
    jnz sum
    mov rbp, rsp
    mov ecx, 8
    mov rdi, second + 128
pushes:
    push rcx
    sub rdi, 8
    mov rax, [rdi]
    add [rsp], rax
    sub ecx, 1
    jnz pushes
    xor ebx, ebx
    mov ecx, 8
    mov rdi, second + 64
    mov r9, rsp
pops:
    mov rax, [r9]
    sub rax, [rdi]
    add rdi, 8
    add r9, 8
    add ebx, eax
    sub ecx, 1
    jnz pops
    mov rsp, rbp
    mov rsi, first
    mov r11, third
    xor edx, edx
search:                             ; left in the ninth round, while r11 leads nowhere
    add edx, 2
    cmp qword [rsi], 9
    je found
    mov rax, [r11]
    add rsi, 8
    lea r11, [r11 + rax]
    cmp edx, 100
    jne search
found:
    shl ebx, 1
    add ebx, 0x30
    xor eax, eax
    hlt
align 16
first: times 16 dq 0
second: times 64 dq 0
third: times 64 dq 8
