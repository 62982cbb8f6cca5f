; A boot sector that sets video mode MODE and draws through the BIOS: a diagonal of every colour, and a line of text. VBE
; modes (from 100h on, set by their own function) are drawn through the window at A0000h.
        bits 16
        org 0x7c00
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
%if MODE >= 0x100
        mov ax, 0x4f02
        mov bx, MODE
        int 0x10
        mov ax, 0xa000
        mov es, ax
        xor di, di
        mov cx, 0x8000
.fill:
        mov ax, di
        xor ah, al
        stosw
        loop .fill
%else
        mov ax, MODE
        int 0x10
        xor cx, cx                      ; column and row
.next:
        mov dx, cx
        mov ah, 0x0c
        mov al, cl
        and al, 0x7f                    ; bit 7 would XOR
        xor bh, bh
        int 0x10
        inc cx
        cmp cx, 190
        jne .next
        mov si, text
.print:
        lodsb
        test al, al
        jz .done
        mov ah, 0x0e
        mov bx, 0x0002
        int 0x10
        jmp .print
.done:
%endif
        mov al, 'D'                     ; done
        out 0xe9, al
.halt:
        hlt
        jmp .halt
text:   db "Video mode", 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
        times 1024 * 1024 - ($ - $$) db 0
