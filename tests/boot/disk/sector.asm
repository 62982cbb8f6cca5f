; A disk that boots itself: BIOS loads sector 0, which reads sector 1 (a line of text), prints it on COM1, writes what it
; read to sector 2, prints how that went, and leaves through the debug exit.
bits 16
org 0x7c00

start:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov [drive], dl
    mov ah, 0x42                ; extended read
    mov dl, [drive]
    mov si, packet
    int 0x13
    mov si, no_read
    jc finish
    mov si, 0x8000
    call print
    mov dword [packet + 8], 2
    mov ax, 0x4300              ; extended write
    mov dl, [drive]
    mov si, packet
    int 0x13
    mov si, no_write
    jc finish
    mov si, written
finish:
    call print
    mov al, 0x10
    out 0xf4, al
    hlt

print:                          ; the text at SI, which ends with a zero
    lodsb
    test al, al
    jz .end
    mov cl, al
    mov dx, 0x3fd
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    mov al, cl
    mov dx, 0x3f8
    out dx, al
    jmp print
.end:
    ret

packet: db 16, 0
        dw 1, 0x8000, 0         ; one sector, at 0:8000
        dq 1
drive:  db 0
written:  db "written", 10, 0
no_read:  db "not read", 10, 0
no_write: db "not written", 10, 0
    times 510 - ($ - $$) db 0
    dw 0xaa55
text: db "sector one", 10, 0
    times 1024 - ($ - $$) db 0
    times 16384 - ($ - $$) db 0
