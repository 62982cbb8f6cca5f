; Paging is switched on with page tables in TABLE, where no RAM is. Whatever the walk reads there, the instruction after
; MOV CR0 can hardly be fetched, nor the exception's gate: a triple fault. PAE 1 takes PAE tables, LONG 1 long mode's.
%include "rom.inc"
main:   say "before"
%ifdef LONG
        mov eax, cr4
        or eax, 1 << 5
        mov cr4, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 8
        wrmsr
%elifdef PAE
        mov eax, cr4
        or eax, 1 << 5
        mov cr4, eax
%endif
        expect .fault
        mov eax, TABLE
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        nop
        mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        say "went on"
        ret
.fault: say "exception"                         ; PAE: MOV CR0 itself loads the PDPTEs, and #GP is right for bad ones
        ret
%include "end.inc"
