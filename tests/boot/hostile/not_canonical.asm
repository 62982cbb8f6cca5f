; Addresses that are not canonical, in every way an address is used: #GP, or #SS through the stack, never anything else.
%include "rom.inc"
%include "long.inc"
BAD     equ 0x8000000000000000
main:   jmp enter_long

        bits 64
; %1: vector expected of what follows, up to `caught`.
%macro faults 1
%push fault
        mov dword [resume], %$caught
        mov byte [wanted], %1
        mov rbx, BAD
%endmacro
%macro caught 0
        jmp missing
%$caught:
        mov al, [last_vector]
        cmp al, [wanted]
        jne wrong
        inc byte [number]
%pop
%endmacro

main64: mov eax, tss                            ; #SS gets a stack of its own: the one that faults takes no frame
        mov word [gdt + 0x30], 103
        mov [gdt + 0x32], ax
        shr eax, 16
        mov [gdt + 0x34], al
        mov byte [gdt + 0x35], 0x89
        mov ax, 0x30
        ltr ax
        mov byte [idt64 + 12 * 16 + 4], 1       ; IST1

        mov byte [number], 'a'
        faults 13
        mov eax, [rbx]
        caught
        faults 13
        mov [rbx], eax
        caught
        faults 13
        lock xadd [rbx], eax
        caught
        faults 13
        jmp rbx
        caught
        faults 13
        call rbx
        caught
        faults 13
        push rbx
        ret
        caught
        faults 12
        mov rsp, rbx
        push rax
        caught
        faults 12
        mov rbp, rbx
        mov eax, [rbp]
        caught
        faults 12
        mov rsp, rbx
        pop rax
        caught
        faults 13
        lgdt [rbx]
        caught
        faults 13
        movups xmm0, [rbx]
        caught
        faults 13
        fld qword [rbx]
        caught
        faults 13
        fxsave [rbx]
        caught
        faults 13
        mov rsi, rbx
        mov rdi, STACK
        mov ecx, 4
        rep movsb
        caught
        faults 13
        mov rdi, rbx
        mov ecx, 4
        rep stosq
        caught
        faults 13                               ; across the boundary between canonical and not
        mov rbx, 0x00007ffffffffffc
        mov rax, [rbx]
        caught
        faults 13                               ; IRETQ loads it
        push qword 0
        push qword STACK
        push qword 2
        push qword 0x18
        push rbx
        iretq
        caught
        faults 13                               ; a base register's write
        mov ecx, 0xc0000101
        mov eax, 1
        mov edx, 0x80000000
        wrmsr
        caught
        mov rsi, good
        jmp print64
missing:
wrong:  mov al, [number]
        mov [bad + 5], al
        mov rsi, bad
        jmp print64
        align 8
tss:    times 36 db 0
        dq STACK - 0x1000                       ; IST1
        times 104 - 44 db 0
number: db 0
wanted: db 0
bad:    db "step ? did not fault as it must", 10, 0
good:   db "went on", 10, 0
        bits 32
%include "end.inc"
