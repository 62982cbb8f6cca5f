; bits: 64
; smap: no
; expect: r13=0 r14=0x1112446422224844 r15=16 rcx=0
; DR0 to DR3: execution, write, access and port breakpoints. The handler collects DR6's condition bits in r14 and the
; sum of the saved RIPs in r13.
bits 64
org 0x10000000
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, handler
    mov [idt + 16], ax
    shr eax, 16
    mov [idt + 22], ax
    mov word [idt + 18], 8
    mov word [idt + 20], 0x8e00
    xor r13, r13
    xor r14, r14
    xor r15, r15
    call loop3                      ; translated before there are breakpoints
    mov eax, here
    mov dr0, rax
    mov eax, variable
    mov dr1, rax
    mov eax, variable + 4
    mov dr2, rax
    mov eax, 0x80
    mov dr3, rax
    mov rax, cr4
    or rax, 8                       ; DE
    mov cr4, rax
    ; DR0 execution, DR1 writes of 4 bytes, DR2 accesses of 1 byte, DR3 port of 1 byte
    mov eax, 0x455 | 1 << 20 | 3 << 22 | 3 << 24 | 2 << 28
    mov dr7, rax
    call loop3                      ; 1 1 1
    mov eax, [variable]             ; a read: nothing
    mov [variable], eax             ; 2
after1:
    mov al, [variable + 4]          ; 4
after2:
    mov [variable + 4], al          ; 4
after3:
    mov [variable + 2], rax         ; 6
after4:
    push qword [variable]           ; 4
after5:
    pop rax
    mov edi, variable - 2
    mov ecx, 8
    mov al, 0x55
string:
    rep stosb                       ; 2 2 2 2 4, each after its element
    mov [variable + 5], al          ; beside both: nothing
    out 0x80, al                    ; 8
after6:
    out 0x81, al
    mov word [variable + 4], 16     ; 4
after7:
    mov ss, [variable + 4]          ; holds its trap, and those of the next instruction
    nop
after8:                             ; 4
    mov eax, held
    mov dr0, rax
    mov eax, 16
    mov ss, eax
held:
    nop                             ; nothing
    xor eax, eax
    mov dr7, rax
    mov [variable], eax
    call loop3
    xor ecx, ecx
    mov rax, 16 * 0x10000000 + 3 * (here - $$) + (after1 - $$) + (after2 - $$) + (after3 - $$) + (after4 - $$) + (after5 - $$) + 5 * (string - $$) + (after6 - $$) + (after7 - $$) + (after8 - $$)
    sub r13, rax
    hlt

loop3:
    xor ecx, ecx
again:
    nop
here:
    inc ecx
    cmp ecx, 3
    jne again
    ret

handler:
    push rax
    mov rax, dr6
    and eax, 15
    shl r14, 4
    or r14, rax
    test al, 1
    jz .trap
    or dword [rsp + 24], 1 << 16    ; RF: the instruction runs now
.trap:
    add r13, [rsp + 8]
    inc r15
    xor eax, eax
    mov dr6, rax
    pop rax
    iretq

align 8
gdt:
    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    dw 23
    dq gdt
idt_pointer:
    dw 31
    dq idt
align 16
idt:
    times 4 dq 0
times (0x1000 - ($ - $$)) db 0      ; a page without code
    dq 0
variable:
    dq 0, 0
