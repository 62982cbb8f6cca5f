; bits: 64
; native: yes
; expect: rax=0x1a6d rcx=0 rbx=0x3a
bits 64
org 0x10000000
    mov edi, 20
    call fib
    mov rbx, 1
    mov ecx, 57
again:
    lea rbx, [rbx + 1]
    loop again
    lea rdx, [rel target]
    call rdx
    hlt
target:
    ret
fib:
    cmp edi, 2
    jb .small
    push rbx
    push rdi
    lea edi, [rdi - 1]
    call fib
    mov rbx, rax
    pop rdi
    sub edi, 2
    call fib
    add rax, rbx
    pop rbx
    ret
.small:
    mov eax, edi
    ret
