; bits: 64
; native: yes
; expect: rax=0x2 rbx=0x1 rcx=0x63
bits 64
org 0x10000000
    mov ecx, 100
loop_start:
    mov byte [rel patch + 1], 2     ; the immediate of the next instruction
patch:
    mov eax, 1
    dec ecx
    cmp ecx, 99
    jae once
    jmp loop_start
once:
    mov byte [rel patch2 + 1], 1
    jmp patch2
    times 5000 nop
patch2:
    mov ebx, 7
    hlt
