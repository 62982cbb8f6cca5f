; A boot sector that prints a line on the first parallel port through the BIOS, and ends with status 33.
        bits 16
        org 0x7c00
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        mov si, text
.next:
        lodsb
        test al, al
        jz .done
        xor ah, ah
        xor dx, dx
        int 0x17
        jmp .next
.done:
        mov al, 0x10
        out 0xf4, al
        hlt
text:   db "printed", 10, 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
        times 1024 * 1024 - ($ - $$) db 0
