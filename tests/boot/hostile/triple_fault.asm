; An exception with no IDT is a double fault, which is a triple fault: shutdown (SDM vol. 3, 6.15, interrupt 8).
%include "rom.inc"
main:   say "before"
        lidt [none]
        int3
        say "after a triple fault"
        ret
none:   dw 0
        dd 0
%include "end.inc"
