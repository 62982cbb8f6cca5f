; An exception whose gate is not present is #NP, and that with no gate either is a double fault: its handler runs.
%include "rom.inc"
main:   and word [idt + 13 * 8 + 4], 0x7fff     ; #GP
        and word [idt + 11 * 8 + 4], 0x7fff     ; #NP
        expect .caught
        mov ax, 0xfff8                          ; #GP, its gate #NP: contributory after contributory
        mov ds, ax
        say "the load of a bad selector went through"
        ret
.caught:
        cmp dword [last_vector], 8
        jne .other
        cmp dword [last_error], 0
        jne .other
        say "double fault"
.other: ret
%include "end.inc"
