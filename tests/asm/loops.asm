; bits: 64
; native: yes
; expect: r9=0x1e r11=0x10010400 rbx=0x10 r15=0x1234
; Loops of one block that write r9, r10 and r11, one of which overwrites an instruction of its own.
bits 64
org 0x10000000
    mov r15d, 0x1234
    mov r14d, 0x77
    mov r8d, 0x55
    mov r11d, 0x10010000
    mov eax, 1
fill:
    mov [r11], rax
    add rax, rax
    adc rax, 0
    add r11, 8
    cmp r11d, 0x10010400
    jne fill

    xor r9d, r9d
    mov r10d, 0x10010000
sum:
    add r9, [r10]
    lea r10, [r10 + 8]
    rol r9, 3
    movzx ecx, r9b
    add [r10 + 0x1000], cl
    mov r9b, cl
    cmp r10, r11
    jb sum
    mov [0x10012000], r9

    xor r9d, r9d
    xor ebx, ebx
    mov r10d, patch + 3
    mov edx, 1
own:
    inc ebx
    mov r9, r9
patch:
    add r9, 1                       ; becomes r9 += 2 after the first round
    lea rdx, [rdx + 1]
    mov ecx, 2
    cmp ebx, 2
    cmova ecx, edx
    mov ecx, 2
    mov [r10], cl
    cmp r9, 0x1e
    jb own
    sub r9, 1
    hlt
