; bits: 64
; native: yes
; expect: rax=0x2c rbx=0x78 rcx=0 rdx=0x33
; Displacements that are the address, with a small register beside them, and registers that point where a displacement leads back from.
bits 64
org 0x10000000
    mov ecx, 8
    xor eax, eax
    xor ebx, ebx
    mov rdx, -0x60000000
again:
    add al, [rcx + table]
    mov rsi, table + 0x60000000
    add bl, [rsi - 0x60000000 + 3]
    mov rdi, table - 0x60000000
    add bl, [rdi + rcx + 0x60000000]
    add bl, [rdx + rcx + table + 0x60000000]
    sub ecx, 1
    jnz again
    mov byte [rdx + table + 0x60000000], 0x33
    movzx edx, byte [table]
    hlt
table: db 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
