; The stack lies where no RAM is, and an exception comes: the frame is lost, the handler runs, its IRET returns to what
; nowhere reads, and so on until the machine shuts down or spins.
%include "rom.inc"
main:   say "before"
        mov esp, NOWHERE + 0x1000
        expect spin
        ud2
spin:   say "went on"
        jmp finish
%include "end.inc"
