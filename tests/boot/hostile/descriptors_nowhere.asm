; GDT, IDT, LDT or TSS lies where no RAM is (WHICH).
%include "rom.inc"
main:   say "before"
%if WHICH == 1
        lidt [table]
        ud2
%elif WHICH == 2
        lgdt [table]
        expect gone
        mov ax, 0x10
        mov ds, ax
        mov ss, ax
        jmp 8:gone
%elif WHICH == 3
        mov dword [gdt + 0x30], 0x0000ffff      ; a TSS at NOWHERE
        mov dword [gdt + 0x34], 0x30008900
        mov ax, 0x30
        ltr ax
        mov dword [gdt + 0x38], 0x0000ffff      ; and another to switch to
        mov dword [gdt + 0x3c], 0x30018900
        expect gone
        jmp 0x38:0
%elif WHICH == 4
        mov dword [gdt + 0x30], 0x0000ffff      ; an LDT at NOWHERE
        mov dword [gdt + 0x34], 0x30008200
        mov ax, 0x30
        lldt ax
        expect gone
        mov ax, 0x0c
        mov es, ax
%endif
gone:   mov ax, 0x10
        mov ds, ax
        say "went on"
        ret
table:  dw 0xffff
        dd NOWHERE
%include "end.inc"
