; bits: 64
; native: yes
; expect: rbx=1 rcx=0 rsi=0x1002ffc1 rdi=0x10038920
bits 64
org 0x10000000
    mov rdi, 0x10010000
    mov rcx, 5000
    mov eax, 0x5a
    cld
    rep stosb                       ; two pages
    mov rsi, 0x10010100
    mov rdi, 0x10010103
    mov dword [rsi], 0x03020100
    mov rcx, 2000
    rep movsb                       ; overlaps: repeats three bytes
    mov rsi, 0x10010101
    mov rdi, 0x10020ffe
    mov rcx, 600
    rep movsd
    mov rsi, 0x10020ffe
    mov rdi, 0x10030001
    mov rcx, 700
    rep movsw
    stc
    mov rcx, 0
    rep movsd                       ; nothing, and no flag changes
    setc bl
    mov rsi, 0x10030001
    mov rdi, 0x10038000
    mov rcx, 64
    std
    rep movsb                       ; downwards
    cld
    mov rcx, 300
    mov eax, 0x11223344
    rep stosq
    hlt
