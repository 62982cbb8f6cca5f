; bits: 32
; native: no
; expect: rbx=1 rcx=0 rsi=0x1002ffc1 rdi=0x10038470
bits 32
org 0x10000000
    mov edi, 0x10010000
    mov ecx, 5000
    mov eax, 0x5a
    cld
    rep stosb                       ; two pages
    mov esi, 0x10010100
    mov edi, 0x10010103
    mov dword [esi], 0x03020100
    mov ecx, 2000
    rep movsb                       ; overlaps: repeats three bytes
    mov esi, 0x10010101
    mov edi, 0x10020ffe
    mov ecx, 600
    rep movsd
    mov esi, 0x10020ffe
    mov edi, 0x10030001
    mov ecx, 700
    rep movsw
    stc
    mov ecx, 0
    rep movsd                       ; nothing, and no flag changes
    setc bl
    mov esi, 0x10030001
    mov edi, 0x10038000
    mov ecx, 64
    std
    rep movsb                       ; downwards
    cld
    mov ecx, 300
    mov eax, 0x11223344
    rep stosd
    hlt
