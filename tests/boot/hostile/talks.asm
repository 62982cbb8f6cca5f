; Prints numbered lines for ever (WHICH 1: without asking whether the serial port takes them; 2: as long as it takes them, while
; the word at COUNTER counts on), or LINES of them and ends (WHICH 3): to a terminal that nobody reads.
COUNTER equ 0x500
LINES   equ 12000
%include "rom.inc"
main:   xor ebx, ebx
        mov [COUNTER], ebx
next:
%if WHICH == 2
.wait:  inc dword [COUNTER]
        mov dx, COM1 + 5
        in al, dx
        test al, 0x20
        jz .wait
        mov al, '.'
        call put
        jmp .wait
%else
        mov eax, ebx
        call print_number
        call new_line
        inc ebx
%if WHICH == 3
        cmp ebx, LINES
        jb next
        ret
%endif
        jmp next
%endif
%include "end.inc"
