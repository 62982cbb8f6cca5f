; Resets the machine by WAY (1: 8042, 2: port 92, 3: port CF9, 4: triple fault) and ends at the second start, which it
; knows from a byte of CMOS memory.
%include "rom.inc"
main:   mov al, 0x50
        out 0x70, al
        in al, 0x71
        cmp al, 0xa5
        je .again
        mov al, 0x50
        out 0x70, al
        mov al, 0xa5
        out 0x71, al
        say "first start"
%if WAY == 1
.busy:  in al, 0x64
        test al, 2
        jnz .busy
        mov al, 0xfe
        out 0x64, al
%elif WAY == 2
        mov al, 1
        out 0x92, al
%elif WAY == 3
        mov dx, 0xcf9
        mov al, 2
        out dx, al
        mov al, 6
        out dx, al
%else
        lidt [none]
        int3
%endif
        jmp $
.again: say "second start"
        ret
none:   dw 0
        dd 0
%include "end.inc"
