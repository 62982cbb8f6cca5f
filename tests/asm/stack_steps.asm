; bits: 64
; native: yes
; expect: rax=0 rbx=0x11 rcx=0x22 rdx=0x33 rsi=0x66 rdi=0x28
; Instructions that see RSP, or move it otherwise, among those that push and pop.
bits 64
org 0x10000000
    mov rbp, rsp
    mov r8, 0x11
    mov r9, 0x22
    push r8
    push r9
    push 0x33
    push rsp                        ; the value before
    pop rax
    sub rax, rsp                    ; 0
    lea rsp, [rsp - 16]
    mov qword [rsp + 8], 0x44
    add rsp, 16
    mov r10, [rsp + 8]              ; 0x22
    mov r11, [rsp + r10 - 0x12]     ; 0x11
    cmp r11, r8
    jne bad
    mov rdi, rbp
    sub rdi, rsp                    ; 24
    push rdi
    lea rdi, [rsp + 24]
    sub rdi, rsp                    ; 24
    pop rsi
    cmp rdi, rsi
    jne bad
    push qword [rsp + 8]
    pop qword [rsp - 24]            ; RSP as it is after the pop
    mov rsi, [rsp - 24]             ; 0x22
    add rsi, 0x22
    push rsi
    mov rsi, rsp
    push rsi
    pop rsp                         ; where it is
    pop rsi                         ; 0x44
    add rsi, 0x22
    call deeper
    push word 0x55
    add rsp, 2
    xchg rsp, rdi
    xchg rsp, rdi
    pop rdx
    pop rcx
    pop rbx
    sub rbp, rsp
    jne bad
    enter 32, 0
    push rbp
    leave                           ; not from where RSP is
    mov rdi, 40
    hlt
deeper:
    push rbx
    sub rsp, 64
    push rbp
    lea rbp, [rsp + 72]
    cmp rsp, rbp
    mov rsp, rbp
    pop rbx
    jae bad
    mov rbp, [rsp - 80]
    ret
bad:
    mov eax, 1
    hlt
