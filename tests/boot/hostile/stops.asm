; The processor stops for ever (WHICH 1: HLT with interrupts off; 2: a jump to itself): the VMM must still be ended by
; Ctrl-A X and SIGTERM.
%include "rom.inc"
main:   say "before"
        cli
%if WHICH == 1
        hlt
%endif
        jmp $
%include "end.inc"
